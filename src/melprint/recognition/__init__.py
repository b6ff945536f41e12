"""What is this recording, where does it start in its track, and is it in the library at all?"""

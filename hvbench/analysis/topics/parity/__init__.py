"""Did the frameworks do the same work?"""

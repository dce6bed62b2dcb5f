"""What each role may do with a place in S3: statements of rights, and the documents that AWS takes them in.

``places`` says what lies where, ``statements`` what a role needs there and what it is denied, ``documents`` writes that
as a policy, and ``lifecycle`` which rules a bucket should have. All pure.
"""

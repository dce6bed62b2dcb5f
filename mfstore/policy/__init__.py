"""What each role may do with a place in S3, Azure or Google Cloud, in the documents that these take it in.

``places`` says what lies where, and ``needs`` what a role does there with which keys. ``statements`` says that in AWS's
words and ``documents`` writes it as a policy; ``azure`` and ``google`` write it as roles and conditions. ``lifecycle``
says which rules a bucket should have. All pure.
"""

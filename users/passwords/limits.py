#: The longest password that a user may choose.
MAX_LENGTH = 128
#: The longest password that is compared, because the cost of hashing grows with the length.
MAX_SUBMITTED_LENGTH = 1024

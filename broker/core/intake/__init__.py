"""What comes in: whose turn it is to be read, what a submission becomes, what each may have."""

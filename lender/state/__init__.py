"""What this machine keeps of its owner: words, records and receipts, as files."""

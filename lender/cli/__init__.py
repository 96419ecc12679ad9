"""The `lender` command: one module per verb, imported only when its verb is typed."""

"""A lender's core among a model of its machine, owner, broker and sandboxes, in any order."""

"""Token sequences for language models: a clip becomes a document, documents are packed, sequences become files."""

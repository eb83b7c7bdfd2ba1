//! JSON Schemas, rewritten for the providers that take only a part of them.

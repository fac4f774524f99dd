//! Python module `quantrs._native`.

//! The wire: plain types of the HTTP API and the typed client.

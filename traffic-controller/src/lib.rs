//! WebSocket endpoints for people and nozzles, merged from all dopplers.

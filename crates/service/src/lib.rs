//! Configuration, supervision, drain, admin server, metric names and process logs.

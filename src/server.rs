//! /metrics, /healthz, /readyz.

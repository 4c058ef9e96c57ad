"""MQTT: presence, notices, control and live events; low-latency hints, never state."""

"""MQTT: presence, notices, control and live events. These are low-latency hints, never state."""

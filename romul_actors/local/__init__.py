"""What `romul run` starts on one machine: a Redis server, an MQTT broker, an actor, workers."""

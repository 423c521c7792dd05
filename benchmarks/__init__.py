"""How fast the service is, measured against the ground it stands on: floors that read the same tables with less."""

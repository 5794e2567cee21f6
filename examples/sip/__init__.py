"""An agent on the telephone, over SIP to the provider; webhooks say that it rings."""

"""An agent on the telephone, over Twilio Media Streams."""

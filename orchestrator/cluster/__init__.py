"""The supervisor's pure logic and the messages between a node's actors."""

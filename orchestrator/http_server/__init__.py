"""Plain HTTP in front of WebSockets: accept a socket, read a request head, answer it, or let go of the socket.

No task per connection. The gateway and the offline endpoint stand on it.
"""

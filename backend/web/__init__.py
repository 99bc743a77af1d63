"""The HTTP layer: endpoints, access, headers, metrics, logs and the admin page.

It parses requests, calls a use case and answers. No rule of the protocol and no SQL lives here. The endpoints live in
`api`, the pages in `admin`. The next layer down is `backend.usecases`.
"""

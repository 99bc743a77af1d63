"""The HTTP layer: endpoints, access, headers, metrics, logs and the admin page.

It parses requests, calls a use case and answers. No rule of the protocol and no SQL lives here. The endpoints are in
`api`, the pages in `admin`. Next storey down: `backend.usecases`.
"""

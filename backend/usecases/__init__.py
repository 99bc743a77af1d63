"""The use cases of the server. A function that changes data is one transaction.

`runs` changes jobs and trials. `reading` answers the API's read calls, `dashboard` and `lists` the admin page's.
`tokens`, `users` and `audit` control access. `records` turns rows into answers. Decisions live in `backend.core`, SQL
in `backend.database`.
"""

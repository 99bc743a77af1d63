"""What the server can do. A function that changes data is one transaction.

`runs` changes jobs and trials, `reading` answers scripts, `dashboard` answers the admin page. `tokens`, `users` and
`audit` control access. `records` turns rows into answers. Decisions are in `backend.core`, SQL in `backend.database`.
"""

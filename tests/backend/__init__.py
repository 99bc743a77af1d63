"""The server, through its public door, on SQLite and on MariaDB."""

"""The server, through its public interface, on SQLite and on MariaDB."""

"""The server, through its public interface, on SQLite, MariaDB and PostgreSQL."""

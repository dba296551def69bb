"""A shop's SQLite database, and what a day does to it: rows updated in place, some deleted, some added.

Deterministic: everything comes from the seed. The first version has room that deleted rows left, so that a day's new rows
go into free pages, as in a database that has been in use for some time, and the file keeps its length.
"""

import random
import sqlite3

PATH = "var/lib/shop/shop.db"
WORDS = "cable lamp green oak steel river paper small large blue chair table clock north south spare".split()
ROWS_PER_MIB = 6900
DELETED_SHARE = 0.1


def connect(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 4096")
    connection.execute("PRAGMA journal_mode = PERSIST")
    # Deleted rows stay as they are on the disk, as the library does unless told otherwise.
    connection.execute("PRAGMA secure_delete = OFF")
    return connection


def row(generator, number):
    text = " ".join(generator.choice(WORDS) for _ in range(12))
    return number, f"customer-{generator.randrange(1 << 20):06}", generator.randrange(1 << 30), generator.randbytes(24), text


def create(path, mib, seed):
    """Makes a database of about `mib` MiB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = random.Random(seed)
    count = mib * ROWS_PER_MIB
    connection = connect(path)
    connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, amount INTEGER, token BLOB, note TEXT)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", (row(generator, n) for n in range(count)))
    connection.execute("CREATE INDEX orders_by_customer ON orders (customer)")
    connection.execute("COMMIT")
    connection.execute("BEGIN")
    first_deleted = generator.randrange(count // 2)
    last_deleted = first_deleted + int(count * DELETED_SHARE)
    connection.execute("DELETE FROM orders WHERE id BETWEEN ? AND ?", (first_deleted, last_deleted))
    connection.execute("COMMIT")
    connection.close()


def work_a_day(path, seed):
    """Changes about 2 % of the rows, in transactions of 100 as a program would."""
    generator = random.Random(seed)
    connection = connect(path)
    last = connection.execute("SELECT max(id) FROM orders").fetchone()[0]
    changes = last // 50
    for start in range(0, changes, 100):
        connection.execute("BEGIN")
        for number in range(start, min(start + 100, changes)):
            # Most work is on what is recent: half of the changes are in the last tenth.
            oldest = last * 9 // 10 if number % 2 else 0
            changed = (generator.randrange(1 << 30), generator.randrange(oldest, last))
            connection.execute("UPDATE orders SET amount = ? WHERE id = ?", changed)
            if number % 8 == 0:
                connection.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", row(generator, last + 1 + number))
        connection.execute("COMMIT")
    connection.close()

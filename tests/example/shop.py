"""A shop that sends mail: the code under test of this example."""

from __future__ import annotations

import smtplib
import threading
from email.message import EmailMessage


class Shop:
    """Confirms orders by mail, through the SMTP server at (host, port)."""

    def __init__(self, smtp: tuple[str, int]) -> None:
        self.smtp = smtp

    def confirm(self, order: int, customer: str, *, copies_to: tuple[str, ...] = (), invoice: bytes = b"") -> None:
        """Send the customer a confirmation, blind copies to others, and the invoice if there is one."""
        message = EmailMessage()
        message["From"] = "Shop <shop@example.org>"
        message["To"] = customer
        message["Subject"] = f"Your order №{order}"
        message.set_content(f"Thank you! Follow your order at https://shop.example.org/orders/{order}.\n")
        if invoice:
            message.add_attachment(invoice, maintype="application", subtype="pdf", filename="invoice.pdf")
        with smtplib.SMTP(*self.smtp) as client:
            client.send_message(message, to_addrs=[customer, *copies_to])

    def confirm_later(self, order: int, customer: str) -> threading.Thread:
        """Confirm in a thread of its own, as a task queue would; return the thread."""
        thread = threading.Thread(target=self.confirm, args=(order, customer))
        thread.start()
        return thread

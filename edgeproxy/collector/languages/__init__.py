"""The languages of readers: texts of pages and mails, and the formats of numbers, dates and money."""

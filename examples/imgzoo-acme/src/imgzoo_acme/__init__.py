"""Image models of acme for imgzoo. Imported when plugins are looked for, so nothing heavy belongs here."""

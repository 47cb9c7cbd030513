"""Other people's systems on pgresults; each module needs the extra of its name, and nothing else imports them."""

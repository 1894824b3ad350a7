"""What sets this checkout up and shows it; nothing here is part of the agent."""

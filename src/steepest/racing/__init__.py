"""Who runs, what happened, who won: plan, ledger, execution, verdict and result of a race."""

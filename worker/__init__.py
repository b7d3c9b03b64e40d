"""Workers: the loop that claims jobs, the engine (Ray) that trains, and the driving of one job."""

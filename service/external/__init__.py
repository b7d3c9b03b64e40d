"""External jobs: the user's own trainer trains, in any framework, and reports over REST.

Reads its range test, proposes trials with the same study code as the workers, and ends the job. SQL is the truth here
too: any replica of the API answers any call, and no call depends on the one before it having met the same process.
"""

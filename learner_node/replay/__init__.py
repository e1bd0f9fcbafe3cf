"""The learner's side of the replay servers: batches come from there, TD errors return.

replay_client.py   all replay servers of a run: requests batches ahead, sends weights and reports
replay_session.py  one replay server, and the check of its batches
td_errors.py       TD errors on their way from the device to the replay servers
"""

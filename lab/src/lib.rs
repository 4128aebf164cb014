//! Boots a cluster of real systemd machines on one computer.

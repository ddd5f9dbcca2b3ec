"""Robust weights"""

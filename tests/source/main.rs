//! What a source may answer, and what comes of it: hubs, stores, the network between, and real peers.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod az;
mod az_credentials;
mod conformance;
mod digests;
mod faults;
mod faults_az;
mod faults_gs;
mod faults_http;
mod faults_hub;
mod faults_network;
mod faults_s3;
mod faults_web;
mod faults_xet;
mod fetch_hub;
mod fetch_s3;
mod gs;
mod gs_credentials;
mod hostile;
mod hub_buckets;
mod hub_kinds;
mod hub_mirrors;
mod locked;
mod mirror;
mod mirror_real;
mod mirrors;
mod modelscope;
mod oci;
mod oci_faults;
mod oci_packed;
mod oci_real;
mod p2p;
mod places;
mod real_clouds;
mod real_hf_cache;
mod real_peers;
mod s3_credentials;
mod s3_settings;
mod stores;
mod web;
mod xet;

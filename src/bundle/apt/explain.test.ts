import assert from 'node:assert/strict'
import { test } from 'node:test'
import { explainApt } from './explain.ts'

const cases: Record<string, string[]> = {
  NO_SPACE: [
    'E: Failed to fetch file:/m/a.deb  Error writing to file - write (28: No space left on device)',
    "E: You don't have enough free space in /var/cache/apt/archives/.",
  ],
  BAD_SIGNATURE: [
    "W: GPG error: file:/m trixie InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0E7B82643E131\nE: The repository 'file:/m trixie InRelease' is not signed.",
    'W: OpenPGP signature verification failed: file:/m trixie InRelease: Sub-process /usr/bin/sqv returned an error code (1), error message is: Missing key 0123',
    "E: GPG error: file:/m trixie InRelease: Clearsigned file isn't valid, got 'NOSPLIT' (does the network require authentication?)",
    'E: GPG error: file:/m trixie InRelease: The following signatures were invalid: BADSIG 0E98404D386FA1D9',
  ],
  DOWNLOAD_CORRUPT: ['E: Failed to fetch file:/m/Packages.xz  Hash Sum mismatch'],
  PACKAGE_UNAVAILABLE: [
    'E: Unable to locate package crun',
    "E: Release 'trixie-backports' for 'qemu-utils' was not found",
    'E: Unable to correct problems, you have held broken packages.\nE: The following packages have unmet dependencies',
  ],
  MIRROR_UNREACHABLE: [
    "E: Failed to fetch file:/m/InRelease  Could not resolve 'mirror.invalid'",
    "E: The repository 'file:/nonexistent trixie Release' does not have a Release file.",
    'E: Failed to fetch file:/m/a.deb  404  Not Found',
  ],
  APT_BUSY: ['E: Could not get lock /x/lists/lock. It is held by process 7 (apt-get)'],
  APT_FAILED: ['E: Something else', ''],
}

for (const [code, outputs] of Object.entries(cases)) {
  test(`failures that mean ${code} are told from others`, () => {
    for (const output of outputs) assert.equal(explainApt(['apt-get', 'update'], output, false)?.code, code, output)
  })
}

test('the message says what apt said, without its mark', () => {
  const error = explainApt(['apt-get'], 'W: Harmless\nE: Unable to locate package crun\n', false)
  assert.match(error?.message ?? '', /: Unable to locate package crun$/)
})

test('success with a warning is success', () => {
  assert.equal(explainApt(['apt-get'], 'W: Download is performed unsandboxed as root\n', true), undefined)
  assert.equal(explainApt(['apt-get'], '', true), undefined)
})

test('success with lists that could not be renewed is not', () => {
  const ignored = 'W: Failed to fetch file:/m/InRelease  Temporary failure\nW: Some index files failed to download.'
  assert.equal(explainApt(['apt-get'], ignored, true)?.code, 'MIRROR_UNREACHABLE')
  const unverified = 'W: An error occurred during the signature verification. The previous index files will be used.'
  assert.equal(explainApt(['apt-get'], unverified, true)?.code, 'BAD_SIGNATURE')
})

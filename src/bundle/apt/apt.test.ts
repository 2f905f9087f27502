import assert from 'node:assert/strict'
import { test } from 'node:test'
import { downloadPercent } from './command.ts'
import { debianSite } from './mirror.ts'
import { parseUri } from './plan.ts'

const hash = 'ab'.repeat(32)

test('a planned package is read from its line', () => {
  const line = `'file:/m/pool/q/qemu_11.1%2bds-1%7ebpo13%2b1_amd64.deb' qemu-utils_1%3a11.1+ds-1~bpo13+1_amd64.deb 1995168 SHA256:${hash}`
  assert.deepEqual(parseUri(line), {
    name: 'qemu-utils',
    version: '1:11.1+ds-1~bpo13+1',
    arch: 'amd64',
    sha256: hash,
    size: 1995168,
    file: 'qemu-utils_1%3a11.1+ds-1~bpo13+1_amd64.deb',
  })
})

test('a package without a SHA-256 in the signed lists is not taken', () => {
  assert.equal(parseUri(`'file:/m/a_1_all.deb' a_1_all.deb 10 MD5Sum:${'0'.repeat(32)}`), undefined)
  assert.equal(parseUri(`'file:/m/a_1_all.deb' a_1_all.deb 10 `), undefined)
})

test('progress lines give the share that has arrived', () => {
  assert.equal(downloadPercent('dlstatus:3:71.0351:Retrieving file 3 of 3'), 71.0351)
  assert.equal(downloadPercent('pmstatus:dpkg:1:Running'), undefined)
})

test('of the configured sources the main archive of Debian is taken, not its security or backports archive', () => {
  const targets = [
    'Docker\tbookworm\tstable\tfile:/docker',
    'Debian-Security\tbookworm-security\tmain\tfile:/security',
    'Debian\tbookworm\tcontrib\tfile:/contrib',
    'Debian\tbookworm\tmain\tfile:/debian',
  ]
  assert.equal(debianSite(targets.join('\n')), 'file:/debian')
})

test('without downloaded lists the name of the release tells the main archive', () => {
  const targets = [
    '$(LABEL)\tbookworm-security\tmain\tfile:/security',
    '$(LABEL)\ttrixie\tmain\tmirror+file:/etc/apt/mirrors/debian.list',
  ]
  assert.equal(debianSite(targets.join('\n')), 'mirror+file:/etc/apt/mirrors/debian.list')
})

test('a host of another distribution has none', () => {
  assert.equal(debianSite('Ubuntu\tnoble\tmain\tfile:/ubuntu\n$(LABEL)\tnoble\tmain\tfile:/ubuntu'), undefined)
  assert.equal(debianSite(''), undefined)
})

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { LocalMachine } from './local.ts'
import { sshSettings } from './ssh-settings.ts'

const local = new LocalMachine()
const before = { PATH: process.env.PATH, SSH_AUTH_SOCK: process.env.SSH_AUTH_SOCK }
let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'settings-'))
  delete process.env.SSH_AUTH_SOCK
})
afterEach(() => {
  rmSync(dir, { recursive: true })
  Object.assign(process.env, before)
  if (before.SSH_AUTH_SOCK === undefined) delete process.env.SSH_AUTH_SOCK
})

/** An ssh client that notes its arguments and prints a configuration. */
function openSsh(lines: readonly string[]): void {
  const script = ['#!/bin/sh', `echo "$@" > ${dir}/args`, "cat <<'END'", ...lines, 'END', '']
  writeFileSync(join(dir, 'ssh'), script.join('\n'), { mode: 0o755 })
  process.env.PATH = `${dir}:${before.PATH}`
}

test('what OpenSSH is configured to do counts', async () => {
  openSsh([
    ...['user me', 'hostname 10.1.2.3', 'port 2200', 'hostkeyalias Alias', 'identitiesonly yes'],
    ...['identityfile ~/.ssh/one', 'identityfile /keys/%h-%r', 'identityagent ~/agent', 'proxycommand none'],
    ...['userknownhostsfile ~/.ssh/known /etc/known', 'globalknownhostsfile /etc/ssh/known'],
  ])
  const settings = await sshSettings(local, 'ssh://server')
  assert.deepEqual(settings, {
    ...{ url: 'ssh://server', destination: 'server', host: '10.1.2.3', port: 2200, user: 'me', hostKeyAlias: 'Alias' },
    knownHostsFiles: [join(homedir(), '.ssh/known'), '/etc/known', '/etc/ssh/known'],
    identityFiles: [join(homedir(), '.ssh/one'), '/keys/10.1.2.3-me'],
    ...{ identitiesOnly: true, agent: join(homedir(), 'agent'), proxy: undefined },
  })
})

test('what OpenSSH is configured not to use is not used', async () => {
  openSsh(['identityagent none', 'identityfile none', 'userknownhostsfile none', 'globalknownhostsfile /known'])
  process.env.SSH_AUTH_SOCK = '/agent'
  const { agent, identityFiles, knownHostsFiles } = await sshSettings(local, 'ssh://server')
  assert.deepEqual(
    { agent, identityFiles, knownHostsFiles },
    {
      ...{ agent: undefined, identityFiles: [], knownHostsFiles: ['/known'] },
    },
  )
})

test('without an ssh client there are its defaults', async () => {
  process.env.PATH = dir
  process.env.SSH_AUTH_SOCK = '/agent'
  const { host, port, user, agent, identityFiles, knownHostsFiles } = await sshSettings(local, 'ssh://server')
  assert.deepEqual([host, port, user, agent], ['server', 22, userInfo().username, '/agent'])
  assert.ok(identityFiles.includes(join(homedir(), '.ssh/id_ed25519')))
  assert.deepEqual(knownHostsFiles, [join(homedir(), '.ssh/known_hosts'), '/etc/ssh/ssh_known_hosts'])
  const given = await sshSettings(local, 'ssh://you@[fe80::1]:2222')
  assert.deepEqual([given.host, given.port, given.user], ['fe80::1', 2222, 'you'])
  assert.equal(given.destination, '-p 2222 you@fe80::1')
})

test('a jump is left to ssh, a proxy command to a shell', async () => {
  openSsh(['hostname inner', 'port 22', 'proxyjump a,me@b:2222'])
  assert.deepEqual((await sshSettings(local, 'ssh://x')).proxy, [
    ...['ssh', '-o', 'BatchMode=yes', '-J', 'a', '-W', 'inner:22', 'ssh://me@b:2222'],
  ])
  openSsh(['hostname inner', 'port 22', 'user me', 'proxycommand nc -X 5 %h %p %%'])
  assert.deepEqual((await sshSettings(local, 'ssh://x')).proxy, ['sh', '-c', 'exec nc -X 5 inner 22 %'])
})

test('what names no host is refused, before any program sees it', async () => {
  for (const url of [
    'ssh://',
    'ssh://-oProxyCommand=x',
    'ssh://-x@host',
    'ssh://a b',
    'ssh://host:99999',
    'ssh://h/p',
  ]) {
    await assert.rejects(sshSettings(local, url), { code: 'BAD_HOST', exitStatus: 2 }, url)
  }
})

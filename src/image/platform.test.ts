import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Descriptor } from './manifest.ts'
import { choosePlatform, noPlatform } from './platform.ts'

function manifest(text: string): Descriptor {
  const [os = '', architecture = '', variant] = text.split('/')
  return { mediaType: '', digest: text, size: 0, platform: { os, architecture, variant } }
}

const choose = (arch: 'x86_64' | 'arm64', ...platforms: string[]) =>
  choosePlatform(platforms.map(manifest), arch)?.digest

test('the architecture decides, and of its variants the one that runs everywhere', () => {
  assert.equal(choose('x86_64', 'linux/arm64/v8', 'linux/amd64/v3', 'linux/amd64'), 'linux/amd64')
  assert.equal(choose('x86_64', 'linux/amd64/v3', 'linux/amd64/v2'), 'linux/amd64/v2')
  assert.equal(choose('arm64', 'linux/arm/v7', 'linux/arm64/v9', 'linux/arm64/v8'), 'linux/arm64/v8')
})

test('other systems, attestations and artifacts are passed over', () => {
  assert.equal(choose('x86_64', 'windows/amd64', 'unknown/unknown', 'linux/386'), undefined)
})

test('the error lists what there is, and names the option that gets it', () => {
  const error = noPlatform('x', 'x86_64', [
    { os: 'linux', architecture: 'arm64', variant: 'v8' },
    { os: 'unknown', architecture: 'unknown' },
  ])
  assert.equal(error.message, 'x has no image for linux/amd64: it has linux/arm64/v8')
  assert.equal(error.hint, 'use --arch arm64')
})

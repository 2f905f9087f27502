import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatReference, parseReference } from './reference.ts'

const digest = `sha256:${'a'.repeat(64)}`

test('references mean what docker and podman take them for', () => {
  const full: Record<string, string> = {
    alpine: 'docker.io/library/alpine:latest',
    'alpine:3.20': 'docker.io/library/alpine:3.20',
    'user/app': 'docker.io/user/app:latest',
    'docker.io/alpine': 'docker.io/library/alpine:latest',
    'index.docker.io/library/alpine': 'docker.io/library/alpine:latest',
    'docker://quay.io/a/b/c:v1': 'quay.io/a/b/c:v1',
    'localhost/app': 'localhost/app:latest',
    'localhost:5000/app': 'localhost:5000/app:latest',
    '[::1]:5000/app:x': '[::1]:5000/app:x',
    [`alpine@${digest}`]: `docker.io/library/alpine@${digest}`,
    [`alpine:3@${digest}`]: `docker.io/library/alpine:3@${digest}`,
    'oci:/srv/x:tag': 'oci:/srv/x:tag',
    'oci-archive:/srv/x.tar': 'oci-archive:/srv/x.tar',
    'docker-archive:/srv/x.tar:alpine:3': 'docker-archive:/srv/x.tar:alpine:3',
  }
  for (const [text, expected] of Object.entries(full)) {
    assert.equal(formatReference(parseReference(text)), expected)
    assert.equal(formatReference(parseReference(expected)), expected)
  }
})

test('what is no reference is refused', () => {
  const wrong = [
    '',
    ':x',
    'Alpine',
    'a//b',
    '../etc',
    'a/../b',
    'alpine:',
    'alpine@sha256:12',
    'x y',
    '-a',
    'http://x/y',
    'oci:',
  ]
  for (const text of [...wrong, 'host.example:99999999/x', `a@${digest}x`, 'a'.repeat(300), 'x\n']) {
    assert.throws(() => parseReference(text), { code: 'IMAGE_BAD_REFERENCE' }, text)
  }
})

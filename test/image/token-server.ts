import { randomUUID, sign, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { Certificate } from './certificates.ts'

export interface TokenServer extends AsyncDisposable {
  realm: string
  /** What each request asked for, and by which way it showed who it was: `basic`, `refresh` or `nobody`. */
  asked: { scope: string; by: string }[]
}

/**
 * Gives out tokens that docker-registry believes (distribution's token specification: a JWT with the chain of its
 * signer) to whom has the password of `user`, or it as a refresh token.
 */
export async function startTokenServer(certificate: Certificate, password: string): Promise<TokenServer> {
  const [cert, key] = await Promise.all([readFile(certificate.cert), readFile(certificate.key)])
  const asked: TokenServer['asked'] = []
  const server = createServer({ cert, key }, async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    const url = new URL(request.url ?? '', 'https://localhost')
    const form = request.method === 'POST' ? new URLSearchParams(body) : url.searchParams
    const { authorization } = request.headers
    const by = form.get('grant_type') === 'refresh_token' ? 'refresh' : authorization ? 'basic' : 'nobody'
    const shown =
      by === 'refresh' ? `user:${form.get('refresh_token')}` : Buffer.from(authorization?.slice(6) ?? '', 'base64')
    const scope = form.get('scope') ?? ''
    asked.push({ scope, by })
    if (String(shown) !== `user:${password}`) {
      response.writeHead(401).end('{}')
      return
    }
    const [type, name, actions = ''] = scope.split(':')
    const access = [{ type, name, actions: actions.split(',') }]
    response.end(JSON.stringify({ token: makeToken(cert, key, form.get('service') ?? '', access) }))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    realm: `https://localhost:${typeof address === 'object' ? address?.port : ''}/token`,
    asked,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
    },
  }
}

function makeToken(cert: Buffer, key: Buffer, audience: string, access: unknown[]): string {
  const now = Math.floor(Date.now() / 1000)
  const header = { typ: 'JWT', alg: 'ES256', x5c: [new X509Certificate(cert).raw.toString('base64')] }
  const times = { nbf: now - 10, iat: now, exp: now + 300 }
  const claims = { iss: 'test', sub: 'user', aud: audience, jti: randomUUID(), ...times, access }
  const text = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  const signature = sign('sha256', Buffer.from(text), { key: key.toString(), dsaEncoding: 'ieee-p1363' })
  return `${text}.${signature.toString('base64url')}`
}

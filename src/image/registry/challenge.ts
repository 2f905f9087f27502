/** What a registry asks for, by its header WWW-Authenticate (RFC 9110). */
export interface Challenge {
  /** In small letters. */
  scheme: string
  parameters: Record<string, string>
}

export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = []
  // Either a parameter, or the scheme of the next challenge.
  for (const match of header.matchAll(
    /([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z][\w-]*)(?=\s|,|$)/g,
  )) {
    const [, key, quoted, plain, scheme] = match
    if (scheme !== undefined) challenges.push({ scheme: scheme.toLowerCase(), parameters: {} })
    const last = challenges.at(-1)
    if (key !== undefined && last) last.parameters[key.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain ?? ''
  }
  return challenges
}

/** A literal of PowerShell, which takes typographic quotes for plain ones: about_Quoting_Rules. */
export function powershellString(text: string): string {
  return `'${text.replace(/['\u2018\u2019\u201a\u201b]/g, '$&$&')}'`
}

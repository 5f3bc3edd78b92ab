"""What the demo sends: two texts an alphabet, the first to be sent and the second to be queued.

Rule 1: what an editor might normalise, hide or reorder (joiners, marks, control characters) is written as escapes.
"""

TEXTS: tuple[tuple[str, str, str], ...] = (
    ("Latin", "Your table is ready at 8.", "The quick brown fox jumps over it"),
    ("Romanian", "Mâine la șase, în stația Țării", "Ăsta-i câinele părinților"),
    ("German", "Größe 45, Straße gesperrt", "GROẞES ÄRGERNIS: ÜBUNG"),
    ("Turkish", "Işık İstanbul'da söndü", "ığdır ILIK İĞDE"),
    ("Vietnamese", "Bạn đã đặt bàn thành công", "Mưa rất to ở Huế"),
    ("Yoruba", "Ẹ káàárọ̀, ẹ ṣé púpọ̀", "O\u0323\u0300po\u0323\u0300lo\u0323\u0300po\u0323\u0300 o\u0300wo\u0301"),
    ("Igbo", "Ụlọ ọgwụ dị nso", "Ọ bụ n'ụtụtụ, ṅụọ mmiri"),
    ("Cyrillic", "Ваш код: 4821. Никому его не говорите", "Їжак з'їв ґрунт"),
    ("Greek", "Το τραπέζι σας είναι έτοιμο", "Ἄνδρα μοι ἔννεπε, Μοῦσα"),
    ("Armenian", "Ձեր պատվերը պատրաստ է", "և Երևան"),
    ("Georgian", "თქვენი შეკვეთა მზადაა", "ᲗᲑᲘᲚᲘᲡᲘ თბილისი"),
    ("Arabic", "طلبك جاهز للاستلام", "السَّلامُ عَلَيْكُم ١٢٣"),
    ("Persian", "می\u200cخواهم کتاب\u200cها را", "سفارش شما ۴۵ دقیقهٔ دیگر"),
    ("Hebrew", "ההזמנה שלך מוכנה", "בְּרֵאשִׁית בָּרָא"),
    ("Devanagari", "आपका ऑर्डर तैयार है", "क्षत्रिय श्री ज्ञान"),
    ("Bengali", "আপনার অর্ডার প্রস্তুত", "ক্ষ জ্ঞ ড়"),
    ("Tamil", "உங்கள் ஆர்டர் தயார்", "ஸ்ரீ க்ஷ"),
    ("Thai", "อาหารของคุณพร้อมแล้ว", "น้ำผึ้งทั้งนี้"),
    ("Khmer", "ម្ហូបរបស់អ្នករួចរាល់", "សូមអរគុណ"),
    ("Burmese", "သင့်အစားအစာ အဆင်သင့်", "ကျေးဇူးတင်ပါတယ်"),
    ("Ethiopic", "ትዕዛዝዎ ዝግጁ ነው", "ሰላም ለዓለም፡፡"),
    ("Chinese", "您的餐桌已准备好", "您的餐桌已準備好，𠮷野家"),
    ("Japanese", "ご予約の席が用意できました", "ｶﾞﾗｽ カ\u3099ラス ガラス"),
    ("Korean", "주문하신 음식이 준비되었습니다", "\u1112\u1161\u11ab\u1100\u1173\u11af 한글"),
    ("Emoji", "🍕 in 10 min 👍🏽 ❤️ 🇳🇬", "👩\u200d👩\u200d👧\u200d👦 🧑🏿\u200d🚀 🏴\u200d☠️ 🏳️\u200d🌈"),
    (
        "Marks",
        "e\u0301 and é, A\u030a and Å and Å",
        "Z\u0351\u0343\u0489a\u0334\u0301l\u030d\u0321g\u0337\u0300o\u0336",
    ),
    ("Symbols", "{[~]} ^ | \\ € £ ¥ § @ _", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ∑ ∞ ≠ ½ № ™"),
    ("Both ways", "Order 12 הזמנה for עלי", "\u202eright to left\u202c and \u2067שלום\u2069"),
    ("Controls", "tab\there, line\nend, \x1b[31mred\x1b[0m", "NUL \x00 bell \x07 C1 \x9b BOM \ufeff"),
    ("Markup", "[bold]not bold[/bold] :smile: &amp;", '<b>"quoted"</b> \\u0041 %s {to} \'; --'),
    ("Long", "A long one. " * 60, "𝕏🙂é " * 320),
)
INBOUND = "Ẹ ṣé! 谢谢 спасибо شكرا תודה धन्यवाद 🙏🏾 \u00bd"
